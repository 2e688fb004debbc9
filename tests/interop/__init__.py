"""With services that run on eventail itself: nox -s interop."""
