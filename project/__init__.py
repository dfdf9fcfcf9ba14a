"""Wiring: settings, URLs, WSGI and ASGI, errors as HTTP, probes, metrics, logs, and Django's commands as our roles.

Imports every other room; nothing imports this one.
"""
