"""The explorer as a program: what keys do, exports, how it starts and ends."""
