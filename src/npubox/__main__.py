# SPDX-License-Identifier: Apache-2.0
"""`python -m npubox` is the command `npubox`."""

from npubox.cli.main import main

if __name__ == "__main__":
    main()
