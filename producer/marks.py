"""The machine-readable mark of an image that a model made: IPTC's DigitalSourceType in an XMP packet.

Source: IPTC Photo Metadata Standard, property Digital Source Type; XMP specification, part 3, on where a packet lies.
"""

from typing import Any

XMP_KEYWORD = "XML:com.adobe.xmp"
"""The text chunk of a PNG that holds an XMP packet."""

AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by an algorithm that was trained on others."""

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="{creator}">
   <Iptc4xmpExt:DigitalSourceType>{kind}</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def xmp_packet(creator: str) -> str:
    """The packet, the same for every image. `creator` names the program, without XML's own characters."""
    return _PACKET.format(creator=creator, kind=AI_MADE)


def is_ai_made(xmp: Any) -> bool:
    """Whether a packet, text or bytes, says so."""
    text = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    return b"DigitalSourceType" in text and AI_MADE.encode() in text
