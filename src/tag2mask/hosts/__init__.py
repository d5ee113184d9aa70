"""Networks with class maps: image -> features F, class maps M, logits.

``Host`` is all that rectification asks of a network. ``table.HOSTS`` lists those that there are: the classic class
activation map over any timm backbone, SEAM, MCTformer. A host of one's own is one file and one line there.
"""

from tag2mask.hosts.host import Host, HostOutput

__all__ = ["Host", "HostOutput"]
