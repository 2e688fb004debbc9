"""What ``eda run`` is made of: the worker, which is a process of its own, and what starts and watches workers."""
