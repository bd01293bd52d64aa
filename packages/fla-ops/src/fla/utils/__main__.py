"""``python -m fla.utils``: see :mod:`fla.utils.doctor`."""

from fla.utils.doctor import main

if __name__ == "__main__":
    raise SystemExit(main())
