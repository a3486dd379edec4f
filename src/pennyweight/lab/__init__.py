"""The data lab: filters, augmentation and generation of training rows.

Each step takes plain values and can be used and measured alone. Nothing here depends on recipes,
budgeted models or runs.
"""
