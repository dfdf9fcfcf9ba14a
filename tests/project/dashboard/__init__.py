"""The admin's first page, its records and its plots."""
