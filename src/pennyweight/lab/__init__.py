"""The data lab: rows filtered, augmented and generated, each step measurable alone.

Plain values in, plain values out; nothing here knows of recipes, models under a budget, or runs.
"""
