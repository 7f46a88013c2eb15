"""From files and hub data sets to tokens with labels."""
