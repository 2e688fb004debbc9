"""Small services that talk to each other, each written twice: in callbacks (``pika``) and in coroutines (``aio``)."""
