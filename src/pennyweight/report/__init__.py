"""Reports about runs: figures, a paper, a notebook, exports, and a local web page.

A report is facts, a content model and templates. Every number in it comes from a run's record.
"""
