"""What can be wrong with a key, said without ever showing one."""


class KeyConfigurationError(Exception):
    """A key variable is missing or unusable. The message names the variable and the command, never the value."""


class UnusableKey(ValueError):
    """The value is no key: not base64, not 32 bytes, or a value that everybody knows."""


class LeaseTaken(Exception):
    """Another process does this work right now."""


class LeaseLost(Exception):
    """This process was silent for so long that another one took its lease."""


class RotationRefused(Exception):
    """A rotation must not start. The message says why and what to do first."""


class MissingKeys(Exception):
    """Rows name key ids that this process does not hold."""


class NonceBudgetSpent(Exception):
    """So much was sealed under one key that random nonces may soon repeat: rotate the key."""
