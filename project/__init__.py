"""Wiring: settings, URLs, WSGI and ASGI, errors as HTTP, probes, metrics, logs, and commands run as the tables' owner.

It may import every other package; none imports this one.
"""
