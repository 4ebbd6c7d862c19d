"""JSON Schema of every config space, one file each, with the class defaults of the fields that a config leaves out.

The folder stands at the top of the repository so that it is found at once; it is installed as `mmconvert.schemas`.
`mmconvert.schema` reads the files from there; nothing imports this module by name.
"""
