"""Schedules: functions of the step, the factor of the learning rate."""
