"""Parts shared by the commands: ``train``, ``generate`` and ``convert``, each a package beside this one.

``command_line`` has errors in one line and checks of numbers; ``run_folder`` knows the folder that a training run
leaves, and which of the checkpoints in it are whole.
"""
