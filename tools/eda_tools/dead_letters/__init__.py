"""How dead letters are published again, and what is changed in them."""
