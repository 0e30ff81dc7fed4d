"""The conformance suite: what every backend has to do, line by line of the specification.

It uses the public interface only, takes the backend from a fixture, and starts server and client processes with the
same backend as the test's own, or with another one. ``ha-qnx conformance --backend NAME`` runs it from an installed
wheel.
"""
