"""The rows of `fastdl.bench`, a module for each area: what is called, how much work it is, and the goal."""
