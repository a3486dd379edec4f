"""Search: many recipes, compared over seeds."""
