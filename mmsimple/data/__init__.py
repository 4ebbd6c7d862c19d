"""Training data: pictures and what is done to them before an encoder sees them."""
