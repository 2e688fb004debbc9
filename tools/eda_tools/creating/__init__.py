"""What ``eda new`` is made of: the files of a project, in ``templates``, and what fills in its names."""
