"""What a QNX Neutrino 6.4.1 kernel answered, asked again.

Small C programs ran on a real kernel (procnto, "CPU:X86 Release:6.4.1") and wrote down what they were told.
``answers.tsv`` has each of those answers, and the tests of this directory ask the same here: the answer is put together
from what the calls return, in the words of the table, and then compared. A difference is allowed only where the table
names the decision of the specification that allows it, and then the table says what our own implementations answer
instead, which is compared as strictly.

``python -m ha_qnx.conformance.answers`` counts the cases.
"""
