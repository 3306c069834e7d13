"""bigmodel-lab: a course on large AI models, and on companies built on them, in which every claim runs.

Importing this package does nothing: no seeds, no threads, no logging, no torch. Import the room you need:
`bigmodel_lab.ops`, `.data`, `.text`, `.models`, `.plan`, `.econ`, `.train`, `.dist`, `.show`, `.course`, `.book`.
"""

__version__ = "0.1.0"
