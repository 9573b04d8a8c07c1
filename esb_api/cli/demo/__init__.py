"""`esb demo`: a whole bus with example services around it, and real work for them."""
