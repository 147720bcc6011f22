package thing;

import static org.junit.Assert.assertEquals;

import org.junit.Test;

public class ThingTest {
    @Test
    public void word() {
        assertEquals("built", Thing.word());
    }
}
