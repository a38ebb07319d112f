"""The language: what people write, what status says, what pods are told and tell back.

Pydantic models, enums and pure functions on them.  Nothing here reads or writes anything.
"""
