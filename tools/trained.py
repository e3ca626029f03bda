"""What the tools that start from a checkpoint share: the data set that it was trained on."""

from mlcv.runs import load_data, read_config


def data_of(checkpoint, root=None, **changes):
    """The DataModule of a checkpoint's configuration, without loader processes.

    Args:
        checkpoint: path of a checkpoint of `mlcv fit`.
        root: data.root, if the data set has moved.
        changes: arguments that differ.
    """
    _, config = read_config(checkpoint, "checkpoint")
    config["data"]["init_args"] |= {"num_workers": 0, **({"root": root} if root else {}), **changes}
    return load_data(config)
