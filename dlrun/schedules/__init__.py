"""Schedules: pure functions of the step that give a factor of the learning rate."""
