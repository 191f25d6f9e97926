"""The pictures of a comparison. Owns matplotlib. A picture is readable without colour and shows no model text."""
