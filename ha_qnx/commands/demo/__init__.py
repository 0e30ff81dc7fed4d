"""The demonstration: clients that go on while their server is killed again and again.

``command`` runs it, ``server`` and ``client`` are its other processes, ``shared`` is what these and ``command`` have in
common, and ``count`` says what was lost.
"""
