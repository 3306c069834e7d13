"""What makes a notebook a course: exercises with graders, predictions before measurements, coverage, the doctor.

In a notebook:

    from bigmodel_lab.course import compare, grade, hint, measured, predict, solution

Importing this costs NumPy only; the exercises of a chapter are imported when one of them is first asked for.
"""

from bigmodel_lab.course.compare import compare
from bigmodel_lab.course.grading import Grade, grade, hint, solution
from bigmodel_lab.course.predict import calibration, measured, predict

__all__ = ["Grade", "calibration", "compare", "grade", "hint", "measured", "predict", "solution"]
