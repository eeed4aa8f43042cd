"""The one error that a person is meant to read."""


class LabError(ValueError):
    """A mistake in what came from outside: text, sound, files, settings.

    Its message is one sentence for a person: what is wrong, where, what was found and expected, what to do.
    """
