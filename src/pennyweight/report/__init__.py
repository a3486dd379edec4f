"""Reports from runs' own records: figures, paper, notebook, run page. Nothing is typed by hand.

A report is facts, a content model, and templates; every number in it is one of the record's.
"""
