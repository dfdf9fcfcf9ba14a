"""Errors of keys and rotations. No message shows key material."""


class KeyConfigurationError(Exception):
    """A key variable is missing or unusable. The message names the variable and the command, never the value."""


class UnusableKey(ValueError):
    """The value is no key: not base64, not 32 bytes, or a value that everybody knows."""


class LeaseTaken(Exception):
    """Another process holds the lease for this work."""


class LeaseLost(Exception):
    """This process did not renew its lease in time, and another one took it."""


class RotationRefused(Exception):
    """A rotation must not start. The message says why and what to do first."""


class RotationCancelled(Exception):
    """A rotation was cancelled while it ran, or before it was taken up. What has moved stays."""


class JobRefused(Exception):
    """A maintenance job is not asked for: it is already, or nobody does it for others."""


class MissingKeys(Exception):
    """Rows name key ids that this process does not hold."""


class NonceBudgetSpent(Exception):
    """So many values were sealed under one key that random nonces may soon repeat: rotate the key."""
