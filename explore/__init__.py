# SPDX-License-Identifier: Apache-2.0
"""Design exploration: a space of configurations, measured point by point, as one table.

``python -m explore SPACE`` is the command; `explore.run.explore` the function, which gives
a pandas DataFrame. What is installed with the ``explore`` extra is imported where it is used.
"""

__all__: list[str] = []
