"""Figures, sliders over figures, and the progress of long work. Chapters start with `show.use()`."""

from bigmodel_lab.show.explore import explore
from bigmodel_lab.show.progress import progress
from bigmodel_lab.show.style import STYLE, finish, label_ends, use
from bigmodel_lab.show.timeline import timeline

__all__ = ["STYLE", "explore", "finish", "label_ends", "progress", "timeline", "use"]
