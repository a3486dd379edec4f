"""Reading, cleaning and splitting rows. Left empty, so that each part can be imported alone."""
