"""The verbs over HTTP: a view parses, calls one function, responds.

Imports the verbs and the rooms under them; nothing imports this room but the URLs and the settings.
"""
