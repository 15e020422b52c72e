"""celebflow: teach a frozen VGG19 to name the people in photographs, and know how good it is."""
