# SPDX-License-Identifier: Apache-2.0
"""What every command needs: command line, files, errors, progress, tables, drawings, stamps."""
