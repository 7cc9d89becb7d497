"""What can go wrong between a model's name and its pixels.

ModelError (a PromptmillError)
    ModelNotFoundError   no such folder, and no such model on the hub
    ConfigError          the folder's JSON asks for something that is not implemented here
    WeightsError         keys or shapes of the safetensors files do not fit the configuration
    RequestError         a request does not fit the program that it was given to
"""

from promptmill.producer.errors import PromptmillError


class ModelError(PromptmillError):
    """Anything that keeps a model from rendering a request."""


class ModelNotFoundError(ModelError):
    """Not a local folder and not found on the hub."""


class ConfigError(ModelError):
    """A field of a configuration file has a value that would give other pixels than asked for."""


class WeightsError(ModelError):
    """The weight files of a component lack keys, have strange ones, or hold them in other shapes."""


class RequestError(ModelError):
    """A request whose shape, step count or guidance does not belong to the program."""
