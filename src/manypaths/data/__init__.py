"""Rows from files and hubs, and the formats that training reads."""
