"""Studies: sweeps with a question, whose answer is checked in code against the finished runs."""

from dlrun.studies.study import Claim, Finding, Study, Verdict, judged

__all__ = ["Claim", "Finding", "Study", "Verdict", "judged"]
