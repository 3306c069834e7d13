"""Models as readable torch modules over the operations of `bigmodel_lab.ops`, computed by our kernels or by torch's."""

from importlib import import_module

_LATER = {  # name -> module, imported at the first use
    "CNN": "cnn",
    "GPT": "gpt",
    "GPTConfig": "config",
    "GRULM": "rnn",
    "MLP": "mlp",
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "EncoderDecoder": "encoder_decoder",
    "EncoderDecoderConfig": "config",
    "QuantisedGPT": "quantised",
    "QuantisedMatrix": "quantised",
    "quantise": "quantised",
    "weights_bytes": "quantised",
    "PRETRAINED": "shipped",
    "pretrained": "shipped",
    "save_pretrained": "shipped",
}
__all__ = [
    "CNN",
    "GPT",
    "GRULM",
    "MLP",
    "PRETRAINED",
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "GPTConfig",
    "QuantisedGPT",
    "QuantisedMatrix",
    "pretrained",
    "quantise",
    "save_pretrained",
    "weights_bytes",
]


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
