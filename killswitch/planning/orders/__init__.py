"""From targets to exact orders."""
