"""Passwords never leave: not in a message, not in a log, not in a traceback.

A storage URL carries its password, and database drivers repeat it in their errors. So whatever the command line prints
about an error or writes to a log passes through `mask_passwords`.
"""

from __future__ import annotations

import re

# user:password@ of a URL. The password may hold anything but blanks and quotes, also a raw "@" or "/".
_IN_URL = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.\-]*://[^\s:/@'\"]*:)[^\s'\"]+(?=@)")
# password=… of a URL's query, of libpq's connection strings and of a repr().
_AS_KEY = re.compile(r"(?i)(?P<start>\b(?:password|passwd|pgpassword)['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&,;)'\"]+)")


def mask_passwords(text: str) -> str:
    """`text` with every password of a URL or connection string replaced by `***`.

    >>> mask_passwords("postgresql://ann:s3cret@db/studies is down")
    'postgresql://ann:***@db/studies is down'
    """
    return _AS_KEY.sub(r"\g<start>***", _IN_URL.sub(r"\g<start>***", text))
