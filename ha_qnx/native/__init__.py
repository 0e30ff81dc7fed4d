"""The binding to libha and to QNX's kernel calls, by ctypes.

``libraries`` finds and declares the functions, ``kernel`` keeps the contract of ``ha_qnx.kernel`` by them; ``libha`` is
the backend ``native``: that kernel with libha's own recovery.
"""
