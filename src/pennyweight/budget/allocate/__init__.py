"""Allocation strategies: functions from costs and gains to ranks; the table is in `strategies`."""
