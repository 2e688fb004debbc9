"""What is tried on an installed wheel, in an environment that knows nothing of the checkout (``nox -s packages``)."""
